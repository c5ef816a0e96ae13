"""The last line on standard output: what became of the job."""

import json
from dataclasses import dataclass

from restok_ray import protocol
from restok_ray.driver import Driver, Outcome

ENDS = {
    protocol.FINISHED: "finished",
    protocol.PERMANENT: "failed for good",
    protocol.TEMPORARY: "failed; start it again",
    protocol.DRAINED: "stopped; the same command goes on",
}


@dataclass(frozen=True)
class Summary:
    """Numbers of one run of the command."""

    job: str
    outcome: Outcome
    seconds: float
    driver: Driver

    def fields(self) -> dict[str, object]:
        """All numbers by name."""
        counts, queue = self.driver.counts, self.driver.queue
        return {
            "job": self.job,
            "exit_code": self.outcome.exit_code,
            "problem": self.outcome.problem,
            "units": queue.total if queue else None,
            "units_left": queue.left if queue else None,
            "units_stored": counts.units_stored_here,
            "units_given_twice": queue.given_twice if queue else 0,
            "units_done_twice": counts.units_done_twice,
            "images": counts.images,
            "rejected": dict(sorted(counts.rejected.items())),
            "workers": counts.workers_seen,
            "workers_lost": counts.workers_lost,
            "seconds": round(self.seconds, 1),
        }

    def json(self) -> str:
        """One JSON object."""
        return json.dumps(self.fields())

    def text(self) -> str:
        """One line for people."""
        counts, queue = self.driver.counts, self.driver.queue
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(counts.rejected.items()))
        parts = [
            f"{queue.total:,} units" if queue else "no plan",
            f"{counts.units_stored_here:,} stored by this run",
            f"{counts.images:,} images",
            f"{counts.rejected.total():,} rejected" + (f" ({reasons})" if reasons else ""),
            f"{counts.workers_seen:,} workers, {counts.workers_lost:,} lost",
            f"{counts.units_done_twice:,} units done twice",
            f"{self.seconds:.1f} s",
        ]
        if queue and queue.left:
            parts.insert(1, f"{queue.left:,} left")
        return f"{self.job} {ENDS[self.outcome.exit_code]}: {', '.join(parts)}"
