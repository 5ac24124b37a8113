"""The shipper: takes records from the spools and brings each to Kafka or to the intake, by one path and no other."""
