"""From the text of a configuration file to a Config, and from two Configs to what a reload has to do."""
