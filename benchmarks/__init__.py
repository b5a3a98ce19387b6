"""Measure gpt4batch as whole processes, beside a floor and its peers."""
