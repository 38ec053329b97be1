"""The write side: the transactional unit of work and its repositories."""
