"""What the commands measure with.

`import hf_vtp` does not import it, and it imports the packages of extras only where they are needed.
"""
