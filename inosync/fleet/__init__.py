"""Several machines that send for one origin, with the journal in Redis. Only with ``fleet`` is it used."""
