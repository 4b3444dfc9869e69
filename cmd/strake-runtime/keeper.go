package main

func keeperMain(args []string) int { return 1 }
