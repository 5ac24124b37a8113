"""The shipper: takes records from the spools and brings each to Kafka or to the intake, by one path and no other."""

# In the data folder. Who holds it is its only shipper, or stands in for it.
LOCK = "shipper.lock"
