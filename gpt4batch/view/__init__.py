"""A local web page over outputs: index, filters, conversations, pictures, comparison, report."""
