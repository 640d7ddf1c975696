"""Workers: the threads of a run, their queues, and the objects that they use."""
