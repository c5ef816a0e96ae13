"""What nvidia-smi sees beside a run: how busy the GPU is, its power and its clock."""

import shutil
import subprocess
import threading
import time

EVERY_MILLISECONDS = 250
QUERY = "utilization.gpu,power.draw,clocks.sm"


class NvidiaSmi:
    """Samples in the background from `with` to its end; none for a processor, or where there is no nvidia-smi."""

    def __init__(self, device):
        self.samples, self.driver, self.process = [], None, None
        index = device.partition(":")[2]
        self.command = None
        if index and shutil.which("nvidia-smi"):
            self.command = ["nvidia-smi", "-i", index]

    def __enter__(self):
        if self.command:
            self.driver = self.ask("driver_version")
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

    def ask(self, what):
        done = subprocess.run(
            [*self.command, f"--query-gpu={what}", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
        return done.stdout.strip() or None

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
