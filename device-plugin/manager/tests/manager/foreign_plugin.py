"""A device plugin of nobody's code but the published proto's.

Arguments: the compiled descriptors of the proto, the directory of plugins, the file name of its socket, a resource, and
its devices. It serves until it is killed. A device that is written to its standard input becomes unhealthy.
"""

import os
import queue
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

descriptors, directory, endpoint, resource, *ids = sys.argv[1:]

pool = descriptor_pool.DescriptorPool()
with open(descriptors, "rb") as file:
    for proto in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
        pool.Add(proto)
try:
    make = message_factory.GetMessageClass
except AttributeError:  # before protobuf 4.22
    make = message_factory.MessageFactory(pool).GetPrototype
messages = {}


def message(name):
    if name not in messages:
        messages[name] = make(pool.FindMessageTypeByName("v1beta1." + name))
    return messages[name]


health = {device: "Healthy" for device in ids}
changed = queue.Queue()
changed.put(None)


def options(request, context):
    return message("DevicePluginOptions")(pre_start_required=True, get_preferred_allocation_available=True)


def list_and_watch(request, context):
    while True:
        changed.get()
        response = message("ListAndWatchResponse")()
        for number, (device, state) in enumerate(sorted(health.items())):
            one = response.devices.add(ID=device, health=state)
            one.topology.nodes.add(ID=number % 2)
        yield response


def prefer(request, context):
    response = message("PreferredAllocationResponse")()
    for one in request.container_requests:
        # The last ones first, beside those that must be.
        others = [device for device in one.available_deviceIDs if device not in one.must_include_deviceIDs]
        best = list(one.must_include_deviceIDs) + sorted(others, reverse=True)
        response.container_responses.add(deviceIDs=best[: one.allocation_size])
    return response


def allocate(request, context):
    response = message("AllocateResponse")()
    for one in request.container_requests:
        answer = response.container_responses.add()
        answer.envs["FOREIGN"] = ",".join(one.devices_ids)
        answer.devices.add(container_path="/dev/foreign", host_path="/dev/null", permissions="rw")
        answer.mounts.add(container_path="/mnt", host_path="/tmp", read_only=True)
        answer.annotations["example.com/note"] = "x"
        answer.cdi_devices.add(name="example.com/x=" + one.devices_ids[0])
    return response


def pre_start(request, context):
    if health[request.devices_ids[0]] != "Healthy":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the device is not well")
    return message("PreStartContainerResponse")()


def unary(function, request, response):
    return grpc.unary_unary_rpc_method_handler(
        function,
        request_deserializer=message(request).FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


methods = {
    "GetDevicePluginOptions": unary(options, "Empty", "DevicePluginOptions"),
    "ListAndWatch": grpc.unary_stream_rpc_method_handler(
        list_and_watch,
        request_deserializer=message("Empty").FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    ),
    "GetPreferredAllocation": unary(prefer, "PreferredAllocationRequest", "PreferredAllocationResponse"),
    "Allocate": unary(allocate, "AllocateRequest", "AllocateResponse"),
    "PreStartContainer": unary(pre_start, "PreStartContainerRequest", "PreStartContainerResponse"),
}
socket = os.path.join(directory, endpoint)
if os.path.exists(socket):
    os.remove(socket)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)])
server.add_insecure_port("unix:" + socket)
server.start()

with grpc.insecure_channel("unix:" + os.path.join(directory, "kubelet.sock")) as channel:
    register = channel.unary_unary(
        "/v1beta1.Registration/Register",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message("Empty").FromString,
    )
    request = message("RegisterRequest")(version="v1beta1", endpoint=endpoint, resource_name=resource)
    request.options.CopyFrom(options(None, None))
    register(request, timeout=60)


def listen():
    for line in sys.stdin:
        health[line.strip()] = "Unhealthy"
        changed.put(None)


threading.Thread(target=listen, daemon=True).start()
server.wait_for_termination()
