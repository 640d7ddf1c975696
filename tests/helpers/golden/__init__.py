"""Records what users of the program see, and compares it with what is expected.

Nothing of NeuroVocal is imported here: the command line, files and sockets are
all that is used, so that the recording holds whatever the code looks like.
"""
