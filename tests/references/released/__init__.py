"""What the released code of each method keeps and merges, as plain loops in float64 over one image.

Written from descriptions in words and the papers' formulas; nothing is taken from the projects themselves. A
module a method, each with INPUTS (arrays it reads), CASES, `outputs(x, case)` (arrays it makes of one image) and
optionally `prepare(x)` (what is done to the drawn inputs). `make.py` writes tests/golden from them.
"""
