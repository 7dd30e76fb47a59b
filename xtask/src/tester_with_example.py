"""Runs `scim2 test` with an example for approvers: the address of a user who exists.

The tester takes a random text where a schema gives no example; a random text is nobody's address,
and stays pending. Only the tester's side is told of the example.
"""

import os
import sys

import httpx
import scim2_tester.filling as filling
from scim2_cli import cli

ADDRESS = "approver@tester.example"

url = os.environ["SCIM_CLI_URL"]
name, _, value = os.environ["SCIM_CLI_HEADERS"].partition(": ")
user = {"userName": ADDRESS, "emails": [{"value": ADDRESS, "type": "work"}]}
answer = httpx.post(f"{url}/Users", headers={name: value}, json=user)
assert answer.status_code == 201, answer.text

example_of = filling.get_random_example_value
filling.get_random_example_value = lambda path: (
    ADDRESS if str(path).endswith(":approvers") else example_of(path)
)
sys.argv = ["scim2", "test"]
cli()
