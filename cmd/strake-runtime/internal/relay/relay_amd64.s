#include "textflag.h"

// func code() (handler, restorer uintptr)
TEXT ·code(SB), NOSPLIT, $0-16
	LEAQ	relayed<>(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	back<>(SB), AX
	MOVQ	AX, restorer+8(FP)
	RET

// relayed is called by the kernel with the signal's number in DI. write(2) may be called in a
// handler (signal-safety(7)); the number lies in the 128 bytes below the stack that nobody else
// uses. The kernel restores all registers afterwards.
TEXT relayed<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	DI, -8(SP)
	MOVL	·pipeFD(SB), DI
	LEAQ	-8(SP), SI
	MOVL	$4, DX
	MOVL	$1, AX // write
	SYSCALL
	RET

// back ends the handler (rt_sigreturn(2)).
TEXT back<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	$15, AX
	SYSCALL
	INT	$3
