"""A Ray cluster of several raylets on this machine, for test_ray.py: run with the Python that has Ray, told what to do line by line.

    add               starts a node with one processor; answers its identifier
    kill IDENTIFIER   kills the node's raylet without grace; answers when it is dead

The first line says the address. At the end of input everything is taken down.
"""

import json
import socket
import sys

from ray.cluster_utils import Cluster

MEMORY = 80 << 20
ATTEMPTS = 4


def persistently(start):
    """A raylet ends if its agents take longer than 15 s, and Ray gives up after 30, which a busy machine may exceed."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return start()
        except Exception as error:
            if attempt == ATTEMPTS:
                raise
            print(f"ray_cluster: attempt {attempt}: {error}", file=sys.stderr)


def node_arguments(cpus):
    """Of a small node. With ports that are named, its raylet waits for fewer files of its agents."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("", 0)) for _ in names]
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return {"num_cpus": cpus, "num_gpus": 0, "object_store_memory": MEMORY, **ports}


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    # The head has no processor: no worker lands on it.
    cluster = persistently(lambda: Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node_arguments(0)}))
    nodes = {}
    say(address=cluster.address)
    for line in sys.stdin:
        order, *identifier = line.split()
        if order == "add":
            node = persistently(lambda: cluster.add_node(**node_arguments(1)))
            nodes[node.node_id] = node
            say(node=node.node_id)
        elif order == "kill":
            cluster.remove_node(nodes.pop(identifier[0]), allow_graceful=False)
            say(killed=identifier[0])
    cluster.shutdown()


main()
