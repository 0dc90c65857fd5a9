"""In the guest: several requests over one connection.

Usage: requests_client.py URL
"""
import sys

import requests

session = requests.Session()
for _ in range(3):
    print(session.get(sys.argv[1]).text, end="")
