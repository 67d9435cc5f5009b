"""Show the service without a cluster: a guided tour, and the stand-in cluster that it runs on."""
