"""One stage: the tokens it sees, what it decides, and the tables of methods it decides with."""
