"""The storage SCU: sends stored bytes, turns each status into delivered, warned, try later or refused, and asks for storage
commitment."""
