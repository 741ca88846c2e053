"""What several job kinds share."""
