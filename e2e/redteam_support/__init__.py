"""What `e2e/redteam` is made of: the corpus folder, the policy made for it, the stack it runs on, its suites."""
