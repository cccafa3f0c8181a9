"""Calls Registration on the socket of the first argument with every :authority of the others, and by default."""

import sys

import grpc

socket, *authorities = sys.argv[1:]
# RegisterRequest { version: "v1beta1" }, and no message to decode in the answer.
request = b"\x0a\x07v1beta1"


def register(options):
    with grpc.insecure_channel("unix:" + socket, options=options) as channel:
        call = channel.unary_unary("/v1beta1.Registration/Register")
        # Twice on one connection: what the first one put into the table of headers, the second one refers to.
        for _ in range(2):
            call(request, timeout=20, metadata=[("x-caller", "python")])


register([])
for authority in authorities:
    register([("grpc.default_authority", authority)])
print(grpc.__version__, "served", 2 + 2 * len(authorities))
