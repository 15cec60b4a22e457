"""Many clients at once through Ringway to a server of other make: each gets the answers to its own requests, in its own order.

Each answer carries what the server made of its request, and the X-Forwarded-For that came with it, which Ringway writes from the client's
address: no two clients have the same. What each client should get is known from the recording.
"""
import asyncio
import base64

import message
from recording import ask, pattern

CLIENTS = 24
AS_RECORDED, REFUSED, WRONG = "as recorded", "with refusals by the server", "WRONG"
GOOD = [AS_RECORDED, REFUSED]


def judge(record, got, ended):
    if not ended:
        return WRONG, "neither answers nor closes"
    try:
        answers = message.responses(got)
    except message.Unclean as unclean:
        return WRONG, str(unclean)
    refused = False
    for answer, wanted in zip(answers, record.answers):
        found = pattern(answer)
        client = answer.all(b"x-client")
        if client and client != [record.address.encode()]:
            return WRONG, f"an answer to {client} instead of {record.address}"
        if told(found) != told(wanted):
            if isinstance(found, str) or found < 400:
                return WRONG, f"{found} for {wanted}"
            refused = True
    if len(answers) > len(record.answers):
        return WRONG, f"{len(answers)} answers for {len(record.answers)}"
    if len(answers) < len(record.answers) and not refused:
        return WRONG, f"{len(answers)} answers for {len(record.answers)}, without a refusal"
    return (REFUSED, "") if refused else (AS_RECORDED, "")


def told(found):
    """ASGI has the query apart from the path, and cannot tell an empty one from none."""
    if not isinstance(found, str):
        return found
    method, target, *body = found.split(" ")
    return [method, base64.b64decode(target).removesuffix(b"?"), *body]


async def run(port, records):
    """(record, verdict, detail) for each."""
    gate = asyncio.Semaphore(CLIENTS)

    async def one(record):
        async with gate:
            return record, *judge(record, *await ask(port, record.address, [record.sent]))

    return await asyncio.gather(*(one(record) for record in records))
