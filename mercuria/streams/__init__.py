"""How Mercuria uses Kafka through Faust: whole batches in, whole batches out.

Faust's own path costs about 150 µs a message, nearly all of it per message and not per byte. Here, the unit of work is
what Kafka returned for one partition in one fetch; all else in Faust stays as it is.
"""
