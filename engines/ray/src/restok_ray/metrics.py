"""Counters for Ray's dashboard and Prometheus, where Ray puts `ray_` before their names."""

from collections import Counter as Counts

from ray.util.metrics import Counter, Gauge

from restok_ray.driver import Driver


class Metrics:
    """What the driver has counted, as Ray's metrics."""

    def __init__(self, job: str) -> None:
        """All of them carry the job's name as a tag."""
        self._images = Counter("restok_images_total", "Images of stored units", ("job",))
        self._rejected = Counter("restok_images_rejected_total", "Images without tokens, by reason", ("job", "reason"))
        self._units_done = Counter("restok_units_done_total", "Units stored by this run", ("job",))
        self._units = Gauge("restok_units_total", "Units of the output", ("job",))
        self._workers = Gauge("restok_workers", "Workers that can take units", ("job",))
        for metric in (self._images, self._rejected, self._units_done, self._units, self._workers):
            metric.set_default_tags({"job": job})
        self._told: Counts[str] = Counts()

    def tell(self, driver: Driver) -> None:
        """Tells what is new."""
        self._add(self._images, "images", driver.counts.images, {})
        self._add(self._units_done, "units", driver.counts.units_stored_here, {})
        for reason, number in driver.counts.rejected.items():
            self._add(self._rejected, f"rejected: {reason}", number, {"reason": reason})
        if driver.queue:
            self._units.set(driver.queue.total)
        self._workers.set(driver.workers_ready)

    def _add(self, counter: Counter, name: str, now: int, tags: dict[str, str]) -> None:
        if now > self._told[name]:
            counter.inc(now - self._told[name], tags)
            self._told[name] = now
