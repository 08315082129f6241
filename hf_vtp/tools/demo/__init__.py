"""The demo: a page, and what it does when somebody clicks."""
