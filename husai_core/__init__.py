"""The science of HUSAI: data, models, sparse autoencoders, stability statistics and the release decision."""
