"""What the released code of each method keeps and merges, as plain loops in float64 over one image.

Written from descriptions in words and the papers' formulas; nothing is taken from the projects themselves. A
module a method, each with INPUTS (arrays it reads), CASES, `outputs(x, case)` (arrays it makes of one image),
and where needed `prepare(x)` (changes the drawn inputs) and `whole(case)` (arrays of no image). `make.py`
writes tests/golden from them.
"""
