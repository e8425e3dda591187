"""Kafka through Faust: batches of records in, batches of records out.

The transport delivers batches, the producer appends them, and the batch table stores them. This package also
holds the envelope of an event, the seal of a leg, and the propagated headers.
"""
