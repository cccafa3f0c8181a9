#!/usr/bin/env python3
"""A container runtime, as far as CNI is concerned: written from the text of the specification alone, and from nothing else
of this project, so that a misunderstanding of ours is not on both sides. No library of a package index does this for
versions 0.4.0 to 1.1.0; Python's own suffice.

usage: driver.py VERB REQUEST     REQUEST: JSON, see `main`. Prints the outcome as JSON.
"""

import ipaddress
import json
import os
import re
import subprocess
import sys

VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]


class Broken(Exception):
    """A plugin that does not do what the specification says."""


class Failed(Exception):
    """A plugin that fails, and says so as it is to."""


def expect(condition, what):
    if not condition:
        raise Broken(what)


# --- Section 2: execution protocol ---


def execute(request, verb, config, attachment):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CNI_")}
    environment["CNI_COMMAND"] = verb
    environment["CNI_PATH"] = ":".join(request["path"])
    if attachment:
        environment["CNI_CONTAINERID"] = request["containerId"]
        environment["CNI_IFNAME"] = request.get("ifname", "eth0")
        if request.get("netns"):
            environment["CNI_NETNS"] = request["netns"]
        if request.get("args"):
            environment["CNI_ARGS"] = request["args"]
    kind = config["type"]
    found = [os.path.join(directory, kind) for directory in request["path"]]
    found = [path for path in found if os.access(path, os.X_OK)]
    expect(found, f"there is no program for {kind}")
    stdin = json.dumps(config).encode()
    done = subprocess.run(found[:1], input=stdin, env=environment, capture_output=True, timeout=60, check=False)
    name = f"{kind} {verb}"
    if done.returncode == 0:
        return done.stdout
    try:
        error = json.loads(done.stdout)
    except ValueError:
        raise Broken(f"{name}: exit code {done.returncode}: {done.stdout!r} {done.stderr!r}") from None
    check_error(name, error)
    raise Failed({"plugin": kind, "code": error["code"], "msg": error["msg"], "details": error.get("details", "")})


def version_of(request, config):
    """VERSION: the plugin has to support the version of the configuration."""
    answer = json.loads(execute(request, "VERSION", {"cniVersion": config["cniVersion"], "type": config["type"]}, False))
    expect(answer["cniVersion"] == config["cniVersion"], f"VERSION answers in {answer['cniVersion']}")
    supported = answer["supportedVersions"]
    expect(config["cniVersion"] in supported, f"{config['type']} supports {supported}")
    return supported


# --- Section 3: execution of network configurations ---


def derive(request, plugin, previous=None, capabilities=True):
    config = {name: value for name, value in plugin.items() if name != "capabilities"}
    config["cniVersion"], config["name"] = request["list"]["cniVersion"], request["list"]["name"]
    declared = [name for name, wanted in plugin.get("capabilities", {}).items() if wanted]
    runtime = {name: value for name, value in request.get("capabilities", {}).items() if name in declared}
    if runtime and capabilities:
        config["runtimeConfig"] = runtime
    if previous is not None:
        config["prevResult"] = previous
    return config


def add(request):
    version, result = request["list"]["cniVersion"], None
    for plugin in request["list"]["plugins"]:
        stdout = execute(request, "ADD", derive(request, plugin, result), True)
        try:
            result = json.loads(stdout)
        except ValueError:
            raise Broken(f"{plugin['type']} ADD: {stdout!r} is not JSON") from None
        check_result(f"{plugin['type']} ADD", result, version, request)
    return result


def silent(request, verb, plugins, previous):
    for plugin in plugins:
        stdout = execute(request, verb, derive(request, plugin, previous), True)
        expect(not stdout, f"{plugin['type']} {verb}: it printed {stdout!r}")


def gc(request):
    for plugin in request["list"]["plugins"]:
        config = derive(request, plugin, capabilities=False)
        config["cni.dev/valid-attachments"] = [{"containerID": id, "ifname": "eth0"} for id in request["valid"]]
        stdout = execute(request, "GC", config, False)
        expect(not stdout, f"{plugin['type']} GC: it printed {stdout!r}")


def status(request):
    for plugin in request["list"]["plugins"]:
        stdout = execute(request, "STATUS", derive(request, plugin, capabilities=False), False)
        expect(not stdout, f"{plugin['type']} STATUS: it printed {stdout!r}")


# --- Section 5: result types ---


def is_ip(text):
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_cidr(text):
    try:
        return "/" in text and bool(ipaddress.ip_interface(text))
    except (ValueError, TypeError):
        return False


def is_text(value):
    return isinstance(value, str) and value != ""


def is_number(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_mac(value):
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", value) is not None


def is_texts(value):
    return isinstance(value, list) and all(is_text(text) for text in value)


def members(name, value, required, optional):
    """An object has what it must have, nothing it must not have, and everything is of its kind."""
    expect(isinstance(value, dict), f"{name} is {value!r}")
    kinds = {**required, **optional}
    missing = required.keys() - value.keys()
    expect(not missing, f"{name} lacks {missing}")
    strange = value.keys() - kinds.keys()
    expect(not strange, f"{name} has {strange}")
    for member, kind in kinds.items():
        expect(member not in value or kind(value[member]), f"{name}.{member} is {value.get(member)!r}")


def check_result(name, result, version, request):
    newest = version == "1.1.0"
    expect(isinstance(result, dict), f"{name}: {result!r} is no object")
    expect(result.get("cniVersion") == version, f"{name}: cniVersion is {result.get('cniVersion')!r}, not {version}")
    strange = result.keys() - {"cniVersion", "interfaces", "ips", "routes", "dns"}
    expect(not strange, f"{name}: the result has {strange}")
    interfaces = result.get("interfaces", [])
    for interface in interfaces:
        extra = {"mtu": is_number, "socketPath": is_text, "pciID": is_text} if newest else {}
        members(f"{name}: interface", interface, {"name": is_text}, {"mac": is_mac, "sandbox": is_text, **extra})
        expect(interface.get("sandbox") in (None, request["netns"]), f"{name}: {interface} is in another sandbox")
    for ip in result.get("ips", []):
        old = {"version": lambda value: value in ("4", "6")} if version == "0.4.0" else {}
        members(f"{name}: ip", ip, {"address": is_cidr, **old}, {"gateway": is_ip, "interface": is_number})
        expect(ip.get("interface", 0) < max(len(interfaces), 1), f"{name}: {ip} is of no interface")
        if old:
            is_6 = ":" in ip["address"]
            expect((ip["version"] == "6") == is_6, f"{name}: {ip} is of another version")
    for route in result.get("routes", []):
        extra = {member: is_number for member in ("mtu", "advmss", "priority", "table", "scope")} if newest else {}
        members(f"{name}: route", route, {"dst": is_cidr}, {"gw": is_ip, **extra})
    lists = {"nameservers": is_texts, "search": is_texts, "options": is_texts}
    members(f"{name}: dns", result.get("dns", {}), {}, {"domain": is_text, **lists})


def check_error(name, error):
    required = {"cniVersion": lambda value: value in VERSIONS, "code": is_number, "msg": is_text}
    members(f"{name}: error", error, required, {"details": is_text})
    expect(error["code"] != 0, f"{name}: the code of an error is 0")


def main():
    """REQUEST: list, path, and for attachments containerId, netns, ifname, args, capabilities, result; for GC valid."""
    verb, request = sys.argv[1], json.loads(sys.argv[2])
    plugins = request["list"]["plugins"]
    try:
        if verb == "ADD":
            outcome = {"result": add(request)}
        elif verb == "DEL":
            outcome = {"result": silent(request, verb, reversed(plugins), request.get("result"))}
        elif verb == "CHECK":
            outcome = {"result": silent(request, verb, plugins, request["result"])}
        elif verb == "GC":
            outcome = {"result": gc(request)}
        elif verb == "STATUS":
            outcome = {"result": status(request)}
        elif verb == "VERSION":
            outcome = {"result": [version_of(request, derive(request, plugin)) for plugin in plugins]}
        else:
            raise SystemExit(f"no verb {verb}")
    except Failed as failed:
        outcome = {"failed": failed.args[0]}
    except Broken as broken:
        outcome = {"broken": str(broken)}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
