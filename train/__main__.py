"""`python -m train`."""

from train.cli import main

if __name__ == "__main__":  # worker processes import this module again
    main(prog_name="python -m train")
