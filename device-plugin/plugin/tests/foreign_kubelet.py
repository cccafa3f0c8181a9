"""A kubelet of another language, as far as a device plugin sees one, from the published proto alone.

It listens in the directory of the first argument and says on standard output, a JSON object a line, what a plugin does. What it is
to ask it reads from standard input, a JSON object a line.
"""

import json
import os
import queue
import sys
import threading
from concurrent import futures

import grpc


# --- protobuf's encoding (fields are numbers with a type: 0 varint, 2 length and octets) ---


def varint(value):
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def text(number, value):
    octets = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(octets)) + octets


def decode(message):
    """Fields as (number, value), in order."""
    at, fields = 0, []

    def number():
        nonlocal at
        value = shift = 0
        while True:
            octet = message[at]
            at += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while at < len(message):
        key = number()
        if key & 7 == 0:
            fields.append((key >> 3, number()))
        elif key & 7 == 2:
            length = number()
            fields.append((key >> 3, message[at : at + length]))
            at += length
        else:
            raise ValueError(f"no field of device plugins has type {key & 7}")
    return fields


def all_of(message, number):
    return [value for field, value in decode(message) if field == number]


def one_of(message, number):
    values = all_of(message, number)
    return values[-1] if values else None


def string_of(message, number):
    return (one_of(message, number) or b"").decode()


# --- the API's messages (deviceplugin v1beta1) ---


def devices(response):
    found = []
    for device in all_of(response, 1):
        topology = one_of(device, 3)
        nodes = [one_of(node, 1) or 0 for node in all_of(topology, 1)] if topology is not None else []
        found.append({"id": string_of(device, 1), "health": string_of(device, 2), "nodes": nodes})
    return found


def allocated(response):
    found = []
    for container in all_of(response, 1):
        entries = {1: {}, 4: {}}
        for number, entry in decode(container):
            if number in entries:
                entries[number][string_of(entry, 1)] = string_of(entry, 2)
        found.append({
            "envs": entries[1],
            "mounts": [
                {"container": string_of(it, 1), "host": string_of(it, 2), "read_only": bool(one_of(it, 3))}
                for it in all_of(container, 2)
            ],
            "devices": [
                {"container": string_of(it, 1), "host": string_of(it, 2), "permissions": string_of(it, 3)}
                for it in all_of(container, 3)
            ],
            "annotations": entries[4],
            "cdi": [string_of(it, 1) for it in all_of(container, 5)],
        })
    return found


# --- the kubelet ---

directory = sys.argv[1]
printing = threading.Lock()
registered = queue.Queue()


def say(what, **more):
    with printing:
        print(json.dumps({"what": what, **more}), flush=True)


def register(request, _context):
    endpoint, resource = string_of(request, 2), string_of(request, 3)
    say("registered", version=string_of(request, 1), endpoint=endpoint, resource=resource)
    registered.put(endpoint)
    return b""


def watch(channel):
    stream = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch")
    try:
        for response in stream(b""):
            say("devices", devices=devices(response))
        say("ended", code="OK")
    except grpc.RpcError as error:
        say("ended", code=error.code().name)


handlers = grpc.method_handlers_generic_handler(
    "v1beta1.Registration", {"Register": grpc.unary_unary_rpc_method_handler(register)}
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
server.add_generic_rpc_handlers((handlers,))
server.add_insecure_port("unix:" + os.path.join(directory, "kubelet.sock"))
server.start()

channel = grpc.insecure_channel("unix:" + os.path.join(directory, registered.get(timeout=60)))
options = channel.unary_unary("/v1beta1.DevicePlugin/GetDevicePluginOptions")(b"", timeout=60)
say("options", pre_start=bool(one_of(options, 1)), preferred=bool(one_of(options, 2)))
threading.Thread(target=watch, args=(channel,), daemon=True).start()

for line in sys.stdin:
    asked = json.loads(line)
    try:
        if asked["ask"] == "allocate":
            containers = [b"".join(text(1, one) for one in ids) for ids in asked["containers"]]
            request = b"".join(text(1, container) for container in containers)
            response = channel.unary_unary("/v1beta1.DevicePlugin/Allocate")(request, timeout=60)
            say("allocated", containers=allocated(response))
        elif asked["ask"] == "prefer":
            container = b"".join(text(1, one) for one in asked["available"])
            container += b"".join(text(2, one) for one in asked["must"])
            container += varint(3 << 3) + varint(asked["size"])
            response = channel.unary_unary("/v1beta1.DevicePlugin/GetPreferredAllocation")(text(1, container), timeout=60)
            say("preferred", ids=[one.decode() for one in all_of(one_of(response, 1), 1)])
        elif asked["ask"] == "pre-start":
            request = b"".join(text(1, one) for one in asked["ids"])
            channel.unary_unary("/v1beta1.DevicePlugin/PreStartContainer")(request, timeout=60)
            say("started")
    except grpc.RpcError as error:
        say("refused", code=error.code().name, why=error.details())
