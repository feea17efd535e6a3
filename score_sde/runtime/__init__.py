"""Devices, processes and signals: what a program runs on."""
