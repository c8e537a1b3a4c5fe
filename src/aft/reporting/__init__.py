"""What people see: figures, the HTML report, and the pages of the studies."""
