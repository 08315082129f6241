"""What the demo does when somebody clicks; its page is scripts/demo/app.py."""
