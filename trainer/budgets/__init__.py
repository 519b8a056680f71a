"""Budgets of time or of operations: how many steps fit."""
