"""The storage SCU: sends stored bytes and turns each answer into delivered, warned, try later or refused; asks for commitment.
"""
