"""From a claimed job to its answer: the job runner tells the story, the pipeline keeps several films in work, and Celery wakes
it. The parent process sends the wake-ups and frees the claims of worker processes that died (pool_watch)."""
