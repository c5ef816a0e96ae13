"""What nvidia-smi sees beside a run: how busy the GPU is, its power and its clock."""

import os
import shutil
import subprocess
import threading
import time

EVERY_MILLISECONDS = 250
QUERY = "utilization.gpu,power.draw,clocks.sm"


def uuid_of(index, listed, visible=None, order=None):
    """The UUID of torch's device `index`, or none where it cannot be told.

    `listed`: index, UUID and name of each GPU as nvidia-smi counts them. `visible` and `order`: CUDA_VISIBLE_DEVICES, where it is set,
    and CUDA_DEVICE_ORDER, by which torch counts.
    """
    wanted = str(index)
    if visible is not None:
        entries = [entry.strip() for entry in visible.split(",")]
        wanted = entries[index] if index < len(entries) else ""
    if wanted.isdecimal():
        # CUDA puts the fastest first, and nvidia-smi the first of the bus: the same only among equals.
        if order != "PCI_BUS_ID" and len({name for _, _, name in listed}) > 1:
            return None
        found = [uuid for number, uuid, _ in listed if number == wanted]
    else:
        # A UUID may be cut short. Of a part of a GPU (MIG) nvidia-smi has no such figures.
        found = [uuid for _, uuid, _ in listed if wanted.startswith("GPU-") and uuid.startswith(wanted)]
    return found[0] if len(found) == 1 else None


class NvidiaSmi:
    """Samples in the background from `with` to its end; none for a processor, or where there is no nvidia-smi."""

    def __init__(self, device):
        self.samples, self.driver, self.process = [], None, None
        index = device.partition(":")[2]
        self.command = None
        if index and shutil.which("nvidia-smi"):
            listed = [tuple(map(str.strip, line.split(",", 2))) for line in self.ask(["nvidia-smi"], "index,uuid,name").splitlines()]
            uuid = uuid_of(
                int(index), [one for one in listed if len(one) == 3], os.environ.get("CUDA_VISIBLE_DEVICES"),
                os.environ.get("CUDA_DEVICE_ORDER"),
            )
            if uuid:
                self.command = ["nvidia-smi", "-i", uuid]

    def __enter__(self):
        if self.command:
            self.driver = self.ask(self.command, "driver_version") or None
            self.process = subprocess.Popen(
                [*self.command, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-lms", str(EVERY_MILLISECONDS)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            threading.Thread(target=self.read, daemon=True).start()
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()

    @staticmethod
    def ask(command, what):
        """What it says, or nothing: a report without these figures is a report."""
        try:
            done = subprocess.run([*command, f"--query-gpu={what}", "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def read(self):
        for line in self.process.stdout:
            try:
                busy, watts, mhz = map(float, line.split(","))
            except ValueError:
                # A figure that this card does not give.
                continue
            self.samples.append((time.time(), busy, watts, mhz))

    def mean(self, start, end):
        """Means between two times in seconds since 1970, or none without a sample there."""
        inside = [sample for sample in self.samples if start <= sample[0] <= end]
        if not inside:
            return None
        return {name: sum(sample[place] for sample in inside) / len(inside) for place, name in enumerate(("busy", "watts", "mhz"), 1)}
