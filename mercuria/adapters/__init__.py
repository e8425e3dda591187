"""How Mercuria speaks to what is not Kafka: one file a counterpart."""
