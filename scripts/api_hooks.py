"""Changes requests so that their answers end."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query or {}
    if str(query.get("follow")).lower() == "true":
        del query["follow"]
    if str(query.get("intervalMs")).isdecimal() and 100 <= int(query["intervalMs"]) <= 10000:
        del query["intervalMs"]
