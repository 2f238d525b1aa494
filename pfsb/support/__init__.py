"""Helpers that know nothing of pfsb: any package may import them, and they import none.

histogram     counts values in buckets
open_files    raises the limit of open files
spelling      suggests a name for a misspelled one
"""
