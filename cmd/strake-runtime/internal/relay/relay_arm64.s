#include "textflag.h"

// func code() (handler, restorer uintptr)
TEXT ·code(SB), NOSPLIT, $0-16
	MOVD	$relayed<>(SB), R0
	MOVD	R0, handler+0(FP)
	MOVD	$back<>(SB), R0
	MOVD	R0, restorer+8(FP)
	RET

// relayed is called by the kernel with the signal's number in R0. write(2) may be called in a
// handler (signal-safety(7)). The kernel restores all registers afterwards.
TEXT relayed<>(SB), NOSPLIT|NOFRAME, $0-0
	SUB	$16, RSP
	MOVW	R0, 8(RSP)
	MOVW	·pipeFD(SB), R0
	ADD	$8, RSP, R1
	MOVD	$4, R2
	MOVD	$64, R8 // write
	SVC
	ADD	$16, RSP
	JMP	(R30)

// back ends the handler (rt_sigreturn(2)).
TEXT back<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVD	$139, R8
	SVC
	BRK
