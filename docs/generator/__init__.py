"""What the documentation takes from the code: tables, schemas, commands, docstrings. Nothing of it is written twice.

PIECES: name --> text          `python -m docs.generator` puts each between its marks in the pages
"""
