"""A Ray cluster of several raylets on this machine, for test_ray.py: run with the Python that has Ray, told what to do line by line.

    add               starts a node with one processor; answers its identifier
    kill IDENTIFIER   kills the node's raylet without grace; answers when it is dead

The first line says the address. At the end of input everything is taken down.
"""

import json
import socket
import sys
import time

from ray._private import services
from ray.cluster_utils import Cluster

MEMORY = 80 << 20
SECONDS_TO_START = 240
asked_once = services.get_node


def patient(*arguments):
    """Ray gives a raylet half a minute to start, which a busy machine may exceed."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            return asked_once(*arguments)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def node_arguments(cpus):
    """Of a small node. With ports that are named, its raylet does not wait for its agents to start, for which Ray has a limit of 15 s."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("", 0)) for _ in names]
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return {"num_cpus": cpus, "num_gpus": 0, "object_store_memory": MEMORY, **ports}


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    services.get_node = patient
    # The head has no processor: no worker lands on it.
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node_arguments(0)})
    nodes = {}
    say(address=cluster.address)
    for line in sys.stdin:
        order, *identifier = line.split()
        if order == "add":
            node = cluster.add_node(**node_arguments(1))
            nodes[node.node_id] = node
            say(node=node.node_id)
        elif order == "kill":
            cluster.remove_node(nodes.pop(identifier[0]), allow_graceful=False)
            say(killed=identifier[0])
    cluster.shutdown()


main()
