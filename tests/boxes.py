"""What is to be delivered, taken as a notifier takes it."""

from queues.service.deliveries import Batch, DeliveryService


def take(deliveries: DeliveryService, limit: int = 100, *, pool: str | None = None) -> list[Batch]:
    """Lease what is due, in all pools or in one."""
    boxes = [box for box in deliveries.boxes() if pool in (None, box.pool)]
    return [batch for box in boxes if (batch := deliveries.take(box, limit)) is not None]
