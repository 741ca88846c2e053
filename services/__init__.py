"""What the API and the workers share: tables, the job lifecycle, artifacts, accounts and decisions."""
