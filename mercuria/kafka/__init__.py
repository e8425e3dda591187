"""How Mercuria uses Kafka through Faust: whole batches in, whole batches out.

The transport hands out batches, the producer takes them, the batch table keeps them. What a record carries besides its
value is here as well: the envelope of an event, the seal of a leg, the headers that are propagated.
"""
