"""Tries each way out of the guest: python3 main.py open|strict."""

import content
import frames
import names
import reload
import tables

for part in [names, content, frames, tables, reload]:
    part.all_cases()
print("DONE", flush=True)
