"""From a claimed job to its answer: the job runner tells the story, the pipeline keeps several films in flight, Celery wakes
it.
"""
